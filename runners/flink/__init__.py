"""Everything that only Flink needs: settings, worker boot, Beam overrides, a local cluster for demo and tests."""
