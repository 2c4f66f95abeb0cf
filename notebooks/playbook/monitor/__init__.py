"""What is watched over time: metrics, targets, history, dashboard. `metrics` and `meter` work in any application."""
