//! From the outbox to the queue, the feed and the sockets: what a commit released leaves here, in order, at least once.
