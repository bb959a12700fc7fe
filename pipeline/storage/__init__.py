"""The run: where its files and arrays live, how a stage is committed, who may write."""
