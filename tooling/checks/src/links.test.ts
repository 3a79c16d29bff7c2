import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { errorCodes, errorProblems } from './guides.ts';
import { brokenLinks } from './links.ts';

describe('brokenLinks', () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'links-'));
    fs.mkdirSync(path.join(folder, 'a'));
  });
  afterEach(() => {
    fs.rmSync(folder, { recursive: true });
  });

  it('finds pages, places and files that are not there', () => {
    fs.writeFileSync(path.join(folder, 'x.css'), '');
    fs.writeFileSync(path.join(folder, 'a/b.html'), '<h1 id="top">b</h1><a href="../index.html#here">i</a>');
    const links = [
      'a/b.html',
      'a/b.html#top',
      '#here',
      'https://else.where/',
      'a/b.html#no',
      'c.html',
      '#no',
    ];
    fs.writeFileSync(
      path.join(folder, 'index.html'),
      `<link rel="x" href="x.css"><link rel="x" href="y.css"><p id="here">${links.map((link) => `<a href="${link}">l</a>`).join('')}`,
    );
    expect(brokenLinks(folder)).toEqual({
      pages: 2,
      links: 9,
      broken: ['y.css', 'a/b.html#no', 'c.html', '#no'].map((link) => `index.html: ${link}`),
    });
  });
});

describe('the guide of the errors', () => {
  it('explains each code, and none that is not there', () => {
    expect(errorProblems('### QUEUE_FULL\n### OTHER\n', ['QUEUE_FULL', 'NOT_READY'])).toEqual([
      'NOT_READY is not explained',
      'there is no code OTHER',
    ]);
    expect(errorCodes()).toEqual(expect.arrayContaining(['QUEUE_FULL', 'SYSTEM_ERROR', 'SOCKET_RESET']));
  });
});
