"""Commands besides running: each is a module with ``main(argv) -> int``."""
