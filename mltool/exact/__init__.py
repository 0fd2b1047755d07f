"""Exact search: nearest rows and ranks, the same whatever the precision, blocks and threads.

How a search runs, from the top (each file opens with a worked example):

    knn             find_neighbors and rank_relevant: choose a precision and a plan, make a visitor
    sweep           make a tile of products for each pair of blocks of queries and gallery
    products, tile  approximate scores of a tile, with a certified bound (error_bounds)
    scan            compare a tile with the visitor's thresholds; THE CONTRACT OF VISITORS IS HERE
    top_k           the visitor that keeps each query's k nearest rows
    ranks           the visitor that counts the irrelevant rows above each relevant one, by
                    query_block, with the helpers of segments, duplicates and relevance
    close_pairs     the visitor that keeps all pairs of rows above a score, and its search
    vector_set      vectors ready to be compared, and the one routine that scores pairs exactly

Everything is numpy; torch is imported by `torch_products` alone, and only where it pays.
"""
