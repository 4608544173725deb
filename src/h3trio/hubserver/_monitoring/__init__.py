"""What the hub server shows of itself: statistics, metrics, the dashboard."""
