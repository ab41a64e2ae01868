-- Profiles with their owner's privacy, contacts and blocks.

CREATE TABLE profiles (
    id TEXT PRIMARY KEY,
    phone TEXT UNIQUE,
    display_name TEXT NOT NULL,
    bio TEXT,
    avatar_url TEXT,
    status TEXT,
    status_text TEXT,
    locale TEXT,
    timezone TEXT,
    country TEXT,
    phone_visible TEXT NOT NULL DEFAULT 'contacts' CHECK (phone_visible IN ('everyone', 'contacts', 'nobody')),
    profile_visible TEXT NOT NULL DEFAULT 'everyone' CHECK (profile_visible IN ('everyone', 'contacts', 'nobody')),
    last_seen_visible TEXT NOT NULL DEFAULT 'contacts' CHECK (last_seen_visible IN ('everyone', 'contacts', 'nobody')),
    presence_visible TEXT NOT NULL DEFAULT 'contacts' CHECK (presence_visible IN ('everyone', 'contacts', 'nobody')),
    read_receipts TEXT NOT NULL DEFAULT 'everyone' CHECK (read_receipts IN ('everyone', 'contacts', 'nobody')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- The folded name from each of its words on, so that the beginning of any word finds it: "ada lovelace" and "lovelace".
CREATE TABLE name_parts (
    part TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES profiles (id),
    PRIMARY KEY (part, user_id)
) WITHOUT ROWID;

CREATE INDEX name_parts_by_user ON name_parts (user_id);

CREATE TABLE contacts (
    owner_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    alias TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (owner_id, user_id)
) WITHOUT ROWID;

-- A pair's row stays after an unblock: its revision must go on rising.
CREATE TABLE blocks (
    user_id TEXT NOT NULL,
    blocked_user_id TEXT NOT NULL,
    active INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, blocked_user_id)
) WITHOUT ROWID;
