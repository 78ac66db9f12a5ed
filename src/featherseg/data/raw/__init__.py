"""From a published archive to a prepared dataset."""
