// The profile and the privacy of who is signed in.

import type { Privacy, Profile } from '@echo/client';
import { signal } from '@preact/signals';
import { Changes } from './changes.js';
import { echo } from './echo.js';
import { remember } from './people.js';

export const profile = signal<Profile | null>(null);
export const privacy = signal<Privacy | null>(null);

const profileMade = new Changes();
const privacyMade = new Changes();

export async function loadProfile(): Promise<void> {
  profile.value = await profileMade.read(() => echo.rest.get('/api/v1/users/me', {}));
  remember([profile.value]);
}

export async function saveProfile(change: { display_name?: string; bio?: string; status_text?: string; avatar_url?: string }): Promise<void> {
  const saved = await echo.rest.patch('/api/v1/users/me', { body: change });
  profileMade.made();
  profile.value = saved;
  remember([profile.value]);
}

export async function loadPrivacy(): Promise<void> {
  privacy.value = await privacyMade.read(() => echo.rest.get('/api/v1/users/me/privacy', {}));
}

export async function savePrivacy(change: Partial<Privacy>): Promise<void> {
  const saved = await echo.rest.put('/api/v1/users/me/privacy', { body: change });
  privacyMade.made();
  privacy.value = saved;
}

export function forgetProfile(): void {
  profile.value = null;
  privacy.value = null;
}
