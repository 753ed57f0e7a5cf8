"""The paper's own numbers (SLMRec, ICLR 2025), copied from its tables; metrics are in percent, hours are those of one A100.

Figures 2, 4 and 5 (depth with and without training, number of blocks) and the online distillation of Section 5.3 are given as
pictures: the text states none of their values, so nothing of them stands here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetSize:
    """A row of Table 1.

    Table 1 describes the files before the rating filter, so the users that were trained on are fewer. Sport's row has fewer
    ratings than users and cannot be right; its mean length is unknown.
    """

    users: int
    items: int
    ratings: int

    @property
    def mean_length(self) -> float | None:
        """Actions per user, or None where the row contradicts itself."""
        return self.ratings / self.users if self.ratings > self.users else None


TABLE_1 = {
    "Cloth": DatasetSize(1_219_678, 376_858, 11_285_464),
    "Movie": DatasetSize(297_529, 60_175, 3_410_019),
    "Music": DatasetSize(112_395, 73_713, 1_443_755),
    "Sport": DatasetSize(332_447, 12_314, 146_639),
}

METRICS = ("HR@1", "HR@5", "NDCG@5", "MRR")  # the four columns per data set of Tables 2, 3, 4 and 9


def _numbers(table: str) -> dict[str, list[float | None]]:
    """First word of each line -> the numbers after it; None where the paper has a dash."""
    lines = [line.split() for line in table.strip().splitlines()]
    return {name: [None if cell == "-" else float(cell) for cell in cells] for name, *cells in lines}


def _metrics(table: str, first: str, second: str) -> dict[str, dict[str, dict[str, float | None]]]:
    """First word of each line -> data set -> metric -> percent, for a table of two data sets; a Rank column is left out."""
    numbers = _numbers(table)
    return {
        name: {first: dict(zip(METRICS, row[:4], strict=True)), second: dict(zip(METRICS, row[4:8], strict=True))}
        for name, row in numbers.items()
    }


#             HR@1   HR@5 NDCG@5    MRR    HR@1   HR@5 NDCG@5    MRR    Rank
_TABLE_2 = """
Caser         9.66  15.18  12.66  13.03    4.27  14.96   9.57  10.36   13.50
GRU4Rec      13.79  15.46  14.64  15.15   10.56  19.47  15.11  15.46    9.25
BERT4Rec     13.60  14.66  14.14  14.59    9.68  14.91  12.40  12.74   11.63
SASRec       13.08  16.94  15.01  15.76    5.57  16.80  11.17  12.08   11.63
HGN          15.96  18.70  17.30  18.27    7.54  19.20  13.42  14.73    6.50
LightSANs    14.12  20.32  17.30  16.86    6.08  17.54  11.81  12.82    8.00
S3-Rec       14.10  18.67  16.10  16.95    7.75  20.39  15.69  14.34    7.50
DuoRec       13.06  18.29  15.79  15.42   10.07  20.37  17.96  16.61    7.88
MAERec       13.29  18.35  15.68  16.13    8.89  20.24  16.03  15.28    8.38
Open-P5      14.13  17.68  17.02      -   12.66  21.98  17.13      -    5.67
E4SRec       16.71  19.45  18.09  18.77   14.74  23.79  19.45  19.74    1.75
E4SRec_8     15.30  18.54  16.91  17.60   13.32  22.49  17.99  18.46    4.00
E4SRec_4     14.58  18.05  16.32  17.01   11.80  21.54  16.73  17.20    5.75
SLMRec_4<-8  16.69  19.47  18.07  18.74   15.29  24.25  19.90  20.36    1.50
"""

#             HR@1   HR@5 NDCG@5    MRR    HR@1   HR@5 NDCG@5    MRR    Rank
_TABLE_3 = """
Caser         0.71   3.28   1.96   2.29    1.05   3.75   2.39   2.84   13.50
GRU4Rec       1.89   3.20   2.57   3.08    5.26   7.75   6.52   7.08   10.13
BERT4Rec      2.10   3.16   2.64   3.11    4.81   6.70   5.79   6.26   10.63
SASRec        1.82   5.72   3.79   4.51    4.70   8.43   6.59   7.24    8.75
HGN           2.01   5.49   3.82   4.17    3.42   6.24   4.83   5.30   10.50
LightSANs     1.05   4.06   2.54   3.00    5.18   8.94   7.07   7.72    8.25
S3-Rec        2.48   7.37   4.94   4.68    4.14   8.49   6.89   7.35    6.88
DuoRec        1.84   4.50   3.19   3.04    4.13   8.81   7.03   6.64    9.13
MAERec        2.19   6.35   4.67   3.96    4.01   8.35   6.65   6.98    8.63
Open-P5       4.35   8.12   6.74      -    5.49   8.50   6.92      -    5.33
E4SRec        5.62   9.29   7.50   7.98    6.40   9.67   8.05   8.70    1.75
E4SRec_8      5.46   8.86   7.21   7.74    5.48   8.63   7.06   7.76    3.63
E4SRec_4      5.33   8.75   7.08   7.59    5.41   8.65   7.04   7.72    4.50
SLMRec_4<-8   5.72   9.15   7.48   8.03    6.62   9.83   8.25   8.89    1.25
"""

# Method -> data set -> metric -> percent, None where the paper has a dash (1 positive and 999 negatives). E4SRec has 32 layers.
# Four rows contradict themselves (no list of ranks has such metrics):
# Open-P5 on Cloth and on Music, DuoRec on Movie, MAERec on Music.
_CLOTH_MOVIE, _MUSIC_SPORT = _metrics(_TABLE_2, "Cloth", "Movie"), _metrics(_TABLE_3, "Music", "Sport")
TABLE_2_3 = {method: row | _MUSIC_SPORT[method] for method, row in _CLOTH_MOVIE.items()}

# Method -> the printed Rank, its last column: of Table 2 (Cloth and Movie) and of Table 3 (Music and Sport).
RANK_2 = {method: row[-1] for method, row in _numbers(_TABLE_2).items()}
RANK_3 = {method: row[-1] for method, row in _numbers(_TABLE_3).items()}

#             HR@1   HR@5 NDCG@5    MRR    HR@1   HR@5 NDCG@5    MRR
_TABLE_4 = """
cos          16.10  18.85  17.48  18.17   14.83  23.08  19.08  19.45
cos+norm     16.28  19.12  17.69  18.40   14.86  23.89  19.36  19.84
cos+ms       16.85  19.05  17.96  18.59   15.05  23.48  19.40  19.76
cos+norm+ms  16.69  19.47  18.07  18.74   15.29  24.25  19.90  20.36
"""

#             HR@1   HR@5 NDCG@5    MRR    HR@1   HR@5 NDCG@5    MRR
_TABLE_9 = """
cos           5.62   8.78   7.23   7.81    6.25   9.25   7.76   8.41
cos+norm      5.95   9.26   7.65   8.23    6.61   9.82   8.24   8.87
cos+ms        5.69   8.94   7.36   7.91    6.51   9.39   7.96   8.62
cos+norm+ms   5.72   9.15   7.48   8.03    6.62   9.83   8.25   8.89
"""

# Terms of the loss that are switched on, e.g. ("cos", "norm") -> data set -> metric -> percent.
_MUSIC_SPORT = _metrics(_TABLE_9, "Music", "Sport")
TABLE_4_9 = {tuple(terms.split("+")): row | _MUSIC_SPORT[terms] for terms, row in _metrics(_TABLE_4, "Cloth", "Movie").items()}

# Method -> epoch-wise training hours, inference hours, trained parameters, parameters at inference (both in 10^9).
TABLE_5 = {
    "Open-P5": (0.92, 4942.0, 0.023, 7.237),
    "E4SRec": (3.95, 0.415, 0.023, 6.631),
    "SLMRec_4<-8": (0.60, 0.052, 0.003, 0.944),
}

# Names as in hyperparameters.sh: lambda_cos, lambda_norm, lambda_ms are the paper's lambda 1, 2, 3, and num_blocks is its b.
_TABLE_6 = """
                   Cloth        Movie        Music        Sport
adam_beta1         0.9          0.9          0.9          0.9
adam_beta2         0.999        0.999        0.999        9.999
adam_epsilon       1e-8         1e-8         1e-8         1e-8
learning_rate      0.003        0.001        0.002        0.002
logging_steps      1            1            1            1
lr_scheduler_type  cosine       cosine       cosine       cosine
max_grad_norm      1.0          1.0          1.0          1.0
max_steps          1500         -1           800          2000
optimizer          adamw_torch  adamw_torch  adamw_torch  adamw_torch
save_strategy      steps        steps        steps        steps
save_steps         50           100          100          100
eval_steps         50           100          100          100
warmup_steps       50           50           100          50
lambda_cos         1.0          1.0          1.0          1.0
lambda_norm        0.1          0.1          0.1          0.1
lambda_ms          1.0          1.0          0.01         0.1
num_blocks         4            4            4            4
"""

# Hyper-parameter -> data set -> the value as printed. Sport's adam_beta2 of 9.999 is printed so; AdamW needs a value below 1.
_DATASETS, *_LINES = [line.split() for line in _TABLE_6.strip().splitlines()]
TABLE_6 = {name: dict(zip(_DATASETS, values, strict=True)) for name, *values in _LINES}

# Method -> data set -> epoch-wise training hours, inference hours.
TABLE_7 = {
    "Open-P5": {"Cloth": (1.36, 3554.43), "Movie": (0.36, 3504.0), "Music": (0.35, 3692.0), "Sport": (1.60, 9017.0)},
    "E4SRec": {"Cloth": (5.27, 0.578), "Movie": (1.90, 0.208), "Music": (1.88, 0.216), "Sport": (6.75, 0.660)},
    "SLMRec_4<-8": {"Cloth": (0.97, 0.070), "Movie": (0.15, 0.030), "Music": (0.30, 0.030), "Sport": (0.98, 0.078)},
}

# Method -> inference hours (mean of the four data sets), improvement of the metrics over SASRec in percent.
TABLE_8 = {"SASRec": (0.015, 0.0), "MAERec": (0.061, 11.96), "SLMRec_4<-8": (0.052, 45.26)}

# Not the paper's: what others have published for conventional models, data set -> model -> (metric, percent, source).
# Leave-one-out, full ranking with seen items masked. Their widths and lengths differ from ours (mostly d = 64, length 50).
PUBLIC = {
    "beauty": {
        "caser": ("HR@10", 4.27, "secondary source"),
        "gru4rec": ("NDCG@10", 3.92, "Li-fAngyU/sequential_rec, logs"),
        "bert4rec": ("NDCG@10", 4.06, "RecBoard, five seeds"),
        "sasrec": ("NDCG@10", 5.68, "Li-fAngyU/sequential_rec, logs"),
        "hgn": ("HR@10", 5.12, "secondary source"),
        "lightsans": ("NDCG@10", 4.44, "RecBole runs (pswrec2k26)"),
        "duorec": ("NDCG@10", 4.4, "secondary source"),
    }
}

# The highest public values that were found on the same file and split, whatever the model
HIGHEST = {
    "beauty": {
        "HR@10": (10.02, "BSARec, ID only: RecBoard, five seeds"),
        "NDCG@10": (6.10, "BSARec, ID only: RecBoard, five seeds"),
    }
}
