"""Raw reviews to sequences, leave-one-out views, candidates and batches."""


def prepare(frame, output_dir, **settings):
    """A data frame of actions as a data set: see `slmrec.data.process.prepare`, which is imported when it is asked for."""
    from slmrec.data.process import prepare as prepare_frame

    return prepare_frame(frame, output_dir, **settings)
