import { describe, expect, it } from 'vitest';
import { deriveSources, formatDeb822, parseDeb822, parseOneLine, sourcesOfSuite } from './apt-sources.ts';

const DEB822 = `# the system
Types: deb deb-src
# a comment within
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/example.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main
`;

describe('parseDeb822', () => {
  it('reads stanzas, leaves out comments and those that are switched off', () => {
    const sources = parseDeb822(DEB822);
    expect(sources.map(({ uris }) => uris)).toEqual([
      ['http://mirror.example/debian'],
      ['http://security.example/debian-security'],
    ]);
    expect(sources[0]).toMatchObject({ types: ['deb', 'deb-src'], suites: ['bookworm', 'bookworm-updates'] });
    expect(sources[0]?.fields.get('Signed-By')).toBe('/usr/share/keyrings/example.gpg');
  });

  it('keeps a key that is written within the file, and writes it back as it was', () => {
    const key =
      'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBFit\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = `Types: deb\nURIs: http://m.example/\nSuites: trixie\nComponents: main\n${key}\n`;
    expect(formatDeb822(parseDeb822(text))).toBe(text);
  });

  it('reads values that go on in the next lines', () => {
    const [source] = parseDeb822(
      'Types: deb\nURIs:\n http://a.example/\n http://b.example/\nSuites: bookworm\nComponents: main\n',
    );
    expect(source?.uris).toEqual(['http://a.example/', 'http://b.example/']);
  });
});

describe('parseOneLine', () => {
  it('reads options, comments and several components', () => {
    const sources = parseOneLine(
      [
        '# deb http://commented.example/ bookworm main',
        'deb [arch=amd64,arm64 signed-by=/k.gpg] http://m.example/debian bookworm main contrib # note',
        'deb-src http://m.example/debian bookworm main',
        '',
      ].join('\n'),
    );
    expect(sources).toHaveLength(2);
    expect(sources[0]).toMatchObject({
      types: ['deb'],
      suites: ['bookworm'],
      components: ['main', 'contrib'],
    });
    expect(Object.fromEntries(sources[0]?.fields ?? [])).toEqual({
      Architectures: 'amd64 arm64',
      'Signed-By': '/k.gpg',
    });
  });
});

describe('deriveSources', () => {
  const derive = (text: string, codename: string): string[] =>
    deriveSources(parseOneLine(text), codename).map(({ uris, suites }) => `${uris.join()} ${suites.join()}`);

  it('adds the backports from the mirror of the release, with its key', () => {
    const derived = deriveSources(parseDeb822(DEB822), 'bookworm');
    expect(derived.map(({ suites }) => suites.join(' '))).toEqual([
      'bookworm bookworm-updates',
      'bookworm-security',
      'bookworm-backports',
    ]);
    expect(
      derived.every(({ types, components }) => types.join() === 'deb' && components.join() === 'main'),
    ).toBe(true);
    expect(derived[2]?.uris).toEqual(['http://mirror.example/debian']);
    expect(derived[2]?.fields.get('Signed-By')).toBe('/usr/share/keyrings/example.gpg');
  });

  it('takes a release that is named by its state', () => {
    expect(derive('deb http://m.example/ stable main', 'trixie')).toEqual([
      'http://m.example/ stable',
      'http://m.example/ trixie-backports',
    ]);
  });

  it('leaves out other people’s sources, discs and parts without main', () => {
    const text = [
      'deb https://other.example/ cloud-sdk-bookworm main',
      'deb cdrom:[Debian]/ bookworm main',
      'deb http://m.example/ bookworm contrib',
      'deb-src http://m.example/ bookworm main',
      'deb http://m.example/ ./',
    ].join('\n');
    expect(derive(text, 'bookworm')).toEqual([]);
  });

  it('asks for no backports of a rolling release', () => {
    expect(derive('deb http://m.example/ sid main', 'sid')).toEqual(['http://m.example/ sid']);
  });
});

describe('sourcesOfSuite', () => {
  it('asks the mirror of the release, with its key, for another suite', () => {
    const [source, ...more] = sourcesOfSuite(deriveSources(parseDeb822(DEB822), 'bookworm'), 'unstable');
    expect(more).toEqual([]);
    expect(source).toMatchObject({
      types: ['deb'],
      uris: ['http://mirror.example/debian'],
      suites: ['unstable'],
      components: ['main'],
    });
    expect(source?.fields.get('Signed-By')).toBe('/usr/share/keyrings/example.gpg');
    expect(sourcesOfSuite([], 'unstable')).toEqual([]);
  });
});
