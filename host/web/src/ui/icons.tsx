// Icons on a grid of 24, drawn in the colour of the text around them. They say nothing to a screen reader: the buttons have names.

const PATHS = {
  back: 'M15 5l-7 7 7 7',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  send: 'M5 12h13M12 5l7 7-7 7',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  search: 'M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16.5 16.5L21 21',
  sent: 'M5 12.5l4.5 4.5L19 7.5',
  twice: 'M2 12.5L6.5 17 16 7.5M11.5 15.5L13 17l9-9.500',
  clock: 'M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM12 8v4.500l3 1.500',
  warn: 'M12 4l9 16H3zM12 10v4M12 17h.01',
  reply: 'M9 7l-5 5 5 5M4 12h9a7 7 0 0 1 7 6',
  edit: 'M4 20l1-4L16 5l3 3L8 19z',
  trash: 'M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  settings: 'M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.600 5.600l2.100 2.100M16.300 16.300l2.100 2.100M5.600 18.400l2.100-2.100M16.300 7.700l2.100-2.100',
  people: 'M9 5a3.500 3.500 0 1 1 0 7 3.500 3.500 0 0 1 0-7zM3 20c0-3.500 2.500-5.500 6-5.500s6 2 6 5.500M16 5.500a3.500 3.500 0 0 1 0 6.500M18 15c2 .800 3 2.500 3 5',
  person: 'M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM5 20c0-4 3-6 7-6s7 2 7 6',
  lock: 'M7 11V8a5 5 0 0 1 10 0v3M5 11h14v9H5z',
  block: 'M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM6.500 6.500l11 11',
  device: 'M4 5h16v11H4zM9 20h6M12 16v4',
  sun: 'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M5 19l1.500-1.500M17.500 6.500L19 5',
  bell: 'M6 16V11a6 6 0 0 1 12 0v5l1.500 2h-15zM10 20.500h4',
  mute: 'M6 16V11c0-1 .200-2 .700-2.800M9 5.700A6 6 0 0 1 18 11v5M4.500 18H16M10 20.500h4M4 4l16 16',
  mark: 'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8z',
  poll: 'M6 20v-8M12 20V4M18 20v-5',
  pin: 'M9 4h6l-1 7 3 3H7l3-3zM12 14v7',
  archive: 'M4 5h16v4H4zM6 9v10h12V9M10 13h4',
  leave: 'M14 4H5v16h9M10 12h11M17 8l4 4-4 4',
  down: 'M6 9l6 6 6-6',
  star: 'M12 4l2.500 5.200 5.500.800-4 4 1 5.700-5-2.700-5 2.700 1-5.700-4-4 5.500-.800z',
  smile: 'M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM8.500 14c1.800 2.500 5.200 2.500 7 0M9 9.500h.01M15 9.500h.01',
  chat: 'M4 5h16v11H10l-5 4v-4H4z',
  info: 'M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM12 11v5M12 8h.01',
  image: 'M4 5h16v14H4zM4 16l5-5 4 4 2-2 5 5M15.500 9h.01',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  play: 'M8 5l11 7-11 7z',
  pause: 'M8 5v14M16 5v14',
  microphone: 'M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM5.500 11a6.500 6.500 0 0 0 13 0M12 17.500V21',
  attach: 'M19 11l-7.500 7.500a4.500 4.500 0 0 1-6.400-6.400L13 4.300a3 3 0 0 1 4.300 4.300l-7.700 7.700a1.500 1.500 0 0 1-2.100-2.100L14 7.600',
  link: 'M10 14a4 4 0 0 0 5.700 0l3-3a4 4 0 0 0-5.700-5.700l-1 1M14 10a4 4 0 0 0-5.700 0l-3 3a4 4 0 0 0 5.700 5.700l1-1',
  flag: 'M6 21V4M6 5h11l-2 4 2 4H6',
  shield: 'M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6zM9 12l2 2 4-4',
  key: 'M8 11a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM11 12l9-9M16 7l3 3',
};

export type IconName = keyof typeof PATHS;

export function Icon({ name, label }: { name: IconName; label?: string }) {
  const said = label ? { role: 'img' as const, 'aria-label': label } : { 'aria-hidden': true as const };
  return (
    <svg class="icon" viewBox="0 0 24 24" {...said}>
      <path d={PATHS[name]} />
    </svg>
  );
}
