"""Reports: pure functions of what was judged. Nothing here runs, reads or decides anything."""
