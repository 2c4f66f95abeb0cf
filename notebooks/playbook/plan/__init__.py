"""The plan: its file, its names on the target, its workload."""
