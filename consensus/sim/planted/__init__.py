"""Known bugs, put in one at a time to prove that the hunt finds them (bft.md section 8).

The shipped code has no switch: a bug is planted by replacing functions of the core, the decoder,
the store or the simulated application while a context is open, and nothing remains afterwards. Each
bug names the scenes in which it is hunted. Where the original belongs to a protocol that is not
used here, its analogue is planted, as section 8 says.

Layout: `bug` plants one; `certificates`, `memory`, `execution`, `timers`, `repetition` and
`borders` hold the bugs of the parts of the protocol they are named after.
"""

from typing import Final

from consensus.sim.planted import borders, certificates, execution, memory, repetition, timers
from consensus.sim.planted.bug import Bug as Bug
from consensus.sim.planted.bug import planted as planted

BUGS: Final = tuple(
    sorted(
        (
            *certificates.BUGS,
            *memory.BUGS,
            *execution.BUGS,
            *timers.BUGS,
            *repetition.BUGS,
            *borders.BUGS,
        ),
        key=lambda bug: (bug.number, bug.variant),
    )
)
