"""One file, one function per subcommand: parse, load, call one library function, write."""
