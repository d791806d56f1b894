"""The paged key/value cache: page formats and the operators that write and read pages."""
