from slmrec.training.catalogue_loss import catalogue_cross_entropy  # noqa
