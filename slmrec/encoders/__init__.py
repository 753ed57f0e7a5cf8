"""Conventional sequential recommenders, one a file, behind `slmrec.recommender.Recommender`."""
