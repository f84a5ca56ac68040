"""What each verb of the command line parses, calls and prints."""
