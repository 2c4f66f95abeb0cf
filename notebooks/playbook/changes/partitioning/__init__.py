"""What turning a table in use into a partitioned one takes: its attributes read and made again, periods, obstacles."""
