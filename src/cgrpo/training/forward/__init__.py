"""Method "forward": the credit table on the forward process, without stochastic sampling or replay."""
