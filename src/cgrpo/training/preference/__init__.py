"""Method "preference": RPO, the paper's offline baseline, or any pairs of a preferred and another picture."""
