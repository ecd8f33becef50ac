"""The packages that `make dist` builds, and the two that one installs."""
