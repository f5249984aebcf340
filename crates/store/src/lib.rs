//! Log segments, snapshots and the history of finished work
