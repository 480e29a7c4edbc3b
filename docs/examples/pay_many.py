"""Pay several people in one HTTP call, and read a balance with its proof.

Start a cluster first (`hypermesh cluster new demo && hypermesh cluster up demo`), then:

    python docs/examples/pay_many.py ~/.local/share/hypermesh/clusters/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from caesar.core.addresses import address_of, address_text
from caesar.runtime.wallet import TransactionBuilder
from native.keys import SecretKey
from native.values import Algorithm, Amount, Digest
from node.client import NodeClient

CAES = 10**9  # base units
VALID_FOR_BLOCKS = 1_000


def main(cluster: Path) -> None:
    passphrase = (cluster / "offline" / "passphrase").read_text().splitlines()[0]
    treasury = SecretKey.load(cluster / "wallets" / "treasury.key", passphrase)
    friends = [SecretKey.generate(Algorithm.FALCON_512) for _ in range(3)]

    with NodeClient("http://[::1]:9293") as node:
        ledger = node.ledger()
        account = node.account(address_text(address_of(treasury.public)))
        lane = next((lane for lane in account["lanes"] if lane["lane"] == 0), None)
        builder = TransactionBuilder(
            treasury,
            chain_id=Digest(bytes.fromhex(ledger["chain_id"])),
            sequence=lane["next_sequence"] if lane else 0,
            has_key=account["has_key"],
        )
        payments = [
            builder.transfer(
                address_of(friend.public),
                Amount(5 * CAES),
                valid_until=ledger["height"] + VALID_FOR_BLOCKS,
            )
            for friend in friends
        ]
        answer = node.submit([payment.payload for payment in payments], timeout_s=10)
        for payment, result in zip(payments, answer["results"], strict=True):
            print(payment.id.hex()[:16], result["outcome"], "in block", result["height"])

        richer = node.account(address_text(address_of(friends[0].public)), prove=True)
        print("balance", richer["balance"], "at height", richer["height"], "with proof")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
