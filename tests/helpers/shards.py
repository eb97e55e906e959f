"""Shards on the disk against the receipts of their writing."""

from quadrat.core.files import sha256_of


def altered(array, receipts):
    """The receipts whose file does not have the bytes that they state."""
    paths = {receipt.cell: array.shard_path(receipt.cell) for receipt in receipts}
    return [
        receipt
        for receipt in receipts
        if (receipt.nbytes, receipt.sha256)
        != (paths[receipt.cell].stat().st_size, sha256_of(paths[receipt.cell]))
    ]
