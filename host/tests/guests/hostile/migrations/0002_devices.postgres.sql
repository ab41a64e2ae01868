CREATE TABLE devices (
    user_id UUID NOT NULL,
    device_id TEXT NOT NULL,
    connection_id UUID NOT NULL,
    connected BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
