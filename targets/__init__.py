"""Device profiles: data only, one TOML file a module and one a JetPack release."""
