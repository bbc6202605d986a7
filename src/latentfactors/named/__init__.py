"""What models of named category factors share between a panel and the kernels.

factors      which row is linked to which factor, and the rows that a fit reads
states       expected loadings of new assets, and the projection of new periods
"""
