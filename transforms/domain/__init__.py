"""What the pipeline is about, in plain Python: nothing here imports Beam."""
