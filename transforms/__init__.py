"""The steps of the pipeline: the modules here are Beam (verbs), ``transforms.domain`` is plain Python (nouns).

Nothing is imported here: whoever wants only the domain must not wait for Beam.
"""
