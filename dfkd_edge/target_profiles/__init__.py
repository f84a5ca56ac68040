"""What is known of a target: module, JetPack, precisions and limits."""
