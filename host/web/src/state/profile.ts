// The profile and the privacy of who is signed in.

import type { Privacy, Profile } from '@echo/client';
import { signal } from '@preact/signals';
import { echo } from './echo.js';
import { remember } from './people.js';

export const profile = signal<Profile | null>(null);
export const privacy = signal<Privacy | null>(null);

export async function loadProfile(): Promise<void> {
  profile.value = await echo.rest.get('/api/v1/users/me', {});
  remember([profile.value]);
}

export async function saveProfile(change: { display_name?: string; bio?: string; status_text?: string; avatar_url?: string }): Promise<void> {
  profile.value = await echo.rest.patch('/api/v1/users/me', { body: change });
  remember([profile.value]);
}

export async function loadPrivacy(): Promise<void> {
  privacy.value = await echo.rest.get('/api/v1/users/me/privacy', {});
}

export async function savePrivacy(change: Partial<Privacy>): Promise<void> {
  privacy.value = await echo.rest.put('/api/v1/users/me/privacy', { body: change });
}

export function forgetProfile(): void {
  profile.value = null;
  privacy.value = null;
}
