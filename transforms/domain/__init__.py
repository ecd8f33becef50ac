"""Pure logic: no Beam, sockets, threads, processes or clock. The only I/O is reading rule and destinations files."""
