"""Byzantine nodes: honest replicas inside, and a tongue that bends what they say (bft.md 10).

Each way to lie is a *trick*: a function that gets one outgoing message and one receiver, and gives
back what that receiver is told instead; None leaves the message to the next trick. Which tricks a
liar knows is drawn from the seed. Everything a liar says under its key is signed with its own key;
it cannot forge others. And everything passes the decoder and the check of signatures before it
reaches an honest core, because that is the duty of the runtime: `Liar.tell`.

Layout: `liar` is the node, and draws its tricks; `trick` says what one is; `silence`,
`normal_case`, `view_changes`, `forgery` and `anything` hold the tricks by what they bend.
"""

from consensus.sim.liars.anything import mutated as mutated
from consensus.sim.liars.anything import mutates as mutates
from consensus.sim.liars.anything import replays as replays
from consensus.sim.liars.forgery import forged_certificates as forged_certificates
from consensus.sim.liars.forgery import forged_tip as forged_tip
from consensus.sim.liars.liar import CLASSIC as CLASSIC
from consensus.sim.liars.liar import TRICKS as TRICKS
from consensus.sim.liars.liar import Liar as Liar
from consensus.sim.liars.liar import Silent as Silent
from consensus.sim.liars.liar import admitted as admitted
from consensus.sim.liars.liar import liar_with as liar_with
from consensus.sim.liars.normal_case import bad_batches as bad_batches
from consensus.sim.liars.normal_case import equivocates as equivocates
from consensus.sim.liars.normal_case import equivocates_to_each as equivocates_to_each
from consensus.sim.liars.normal_case import equivocates_to_f as equivocates_to_f
from consensus.sim.liars.normal_case import proposes_again as proposes_again
from consensus.sim.liars.normal_case import votes_far_ahead as votes_far_ahead
from consensus.sim.liars.normal_case import votes_too_much as votes_too_much
from consensus.sim.liars.normal_case import wrong_roots as wrong_roots
from consensus.sim.liars.silence import almost_too_late as almost_too_late
from consensus.sim.liars.silence import loses_some as loses_some
from consensus.sim.liars.silence import no_new_view as no_new_view
from consensus.sim.liars.silence import says_nothing as says_nothing
from consensus.sim.liars.silence import withholds_bodies as withholds_bodies
from consensus.sim.liars.trick import Trick as Trick
from consensus.sim.liars.view_changes import bare_view_change as bare_view_change
from consensus.sim.liars.view_changes import bent_new_view as bent_new_view
from consensus.sim.liars.view_changes import floods_views as floods_views
from consensus.sim.liars.view_changes import odd_new_view as odd_new_view
from consensus.sim.liars.view_changes import odd_view_change as odd_view_change
