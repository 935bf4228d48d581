"""What is claimed and when it holds: the words an experiment is written in, and judging by them.

Contrasts, gates, claims and kinds of figures as plain data; the statistics that turn one number per
seed into a verdict, and the words it is said in; finding experiments and models by name. No files,
no data sets, no Keras: `make list` reads all of this and answers at once.
"""
