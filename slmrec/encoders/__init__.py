"""The encoders: conventional sequential recommenders, one a file, behind `slmrec.recommender.Recommender`."""
