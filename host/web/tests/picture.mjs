// A picture to send: a PNG without any library, large enough that it travels in parts.
import { deflateSync } from 'node:zlib';

const crcTable = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const frame = Buffer.alloc(body.length + 8);
  frame.writeUInt32BE(data.length, 0);
  body.copy(frame, 4);
  frame.writeUInt32BE((body.reduce((crc, byte) => crcTable[(crc ^ byte) & 255] ^ (crc >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0, body.length + 4);
  return frame;
}

/** A landscape of soft colours (PNG specification, RFC 2083). */
export function picture(width = 800, height = 600) {
  const rows = Buffer.alloc(height * (1 + width * 3));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const hill = y > height * (0.62 + 0.14 * Math.sin(x / 90) + 0.05 * Math.sin(x / 23));
      const sun = (x - width * 0.7) ** 2 + (y - height * 0.3) ** 2 < (height * 0.11) ** 2;
      const rgb = hill ? [30 + (y * 20) / height, 150 - (y * 70) / height, 92 - (y * 30) / height] : sun ? [255, 221, 128] : [120 + ((y * 100) / height), 180, 230 - ((y * 60) / height)];
      rgb.forEach((value, index) => (rows[y * (1 + width * 3) + 1 + x * 3 + index] = value));
    }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk('IHDR', head), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}
