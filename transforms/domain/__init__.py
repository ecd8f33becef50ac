"""Decides and never does: no Beam, sockets, threads, processes or clock. Only rule files are read here."""
