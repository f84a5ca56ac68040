"""Settings: one frozen dataclass a stage. Reading and writing them is `config.file`."""
