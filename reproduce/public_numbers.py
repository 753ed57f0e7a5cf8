"""Numbers that others have published for conventional models, in percent, by our names of data sets and models.

All are of leave-one-out, full ranking with seen items masked. Their widths and lengths differ from ours (mostly d = 64, length 50).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicNumber:
    """One metric of one model."""

    metric: str
    value: float
    source: str


PUBLIC_NUMBERS = {
    "beauty": {
        "caser": PublicNumber("HR@10", 4.27, "secondary source"),
        "gru4rec": PublicNumber("NDCG@10", 3.92, "Li-fAngyU/sequential_rec, logs"),
        "bert4rec": PublicNumber("NDCG@10", 4.06, "RecBoard, five seeds"),
        "sasrec": PublicNumber("NDCG@10", 5.68, "Li-fAngyU/sequential_rec, logs"),
        "hgn": PublicNumber("HR@10", 5.12, "secondary source"),
        "lightsans": PublicNumber("NDCG@10", 4.44, "RecBole runs (pswrec2k26)"),
        "duorec": PublicNumber("NDCG@10", 4.4, "secondary source"),
    }
}
