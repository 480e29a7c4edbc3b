"""What the ledger computes in Rust: transactions, account table, Merkle-sum tree.

`Accounts` numbers addresses, keeps keys and the committed state, and makes `Transactions` of a
batch: columns for the rules, one handle for the rest. `SumTree` is the tree on its own.
`measure_part` and
`fold_parts` are the tree in pieces, as snapshots carry it. `sign_transactions` draws randomness and
is for runtimes; cores use everything else.
"""

from native._native import (
    Accounts,
    SumTree,
    Transactions,
    account_tree_key,
    fold_parts,
    measure_part,
    sign_transactions,
    system_tree_key,
    verify_sum_proof,
)

__all__ = [
    "Accounts",
    "SumTree",
    "Transactions",
    "account_tree_key",
    "fold_parts",
    "measure_part",
    "sign_transactions",
    "system_tree_key",
    "verify_sum_proof",
]
