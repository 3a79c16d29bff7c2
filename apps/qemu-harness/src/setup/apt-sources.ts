/**
 * Reads the package sources that this system's apt uses, in both of their formats, and derives from them those the
 * harness needs: the same mirrors, plus the backports of the running release. So no mirror's name is written down here,
 * and what works for the system (a proxy, an internal mirror, a signing key) works for the harness.
 */

/** One source: a mirror, suites and components, with all other fields as they were. */
export interface AptSource {
  readonly types: readonly string[];
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Further deb822 fields with their names (`Signed-By`); a value may span lines. */
  readonly fields: ReadonlyMap<string, string>;
}

/** The deb822 names of the options in brackets of the one-line format. */
const OPTION_FIELDS: Readonly<Record<string, string>> = {
  arch: 'Architectures',
  lang: 'Languages',
  target: 'Targets',
  pdiffs: 'PDiffs',
  'by-hash': 'By-Hash',
  'allow-insecure': 'Allow-Insecure',
  'allow-weak': 'Allow-Weak',
  'allow-downgrade-to-insecure': 'Allow-Downgrade-To-Insecure',
  trusted: 'Trusted',
  'signed-by': 'Signed-By',
  'check-valid-until': 'Check-Valid-Until',
  'valid-until-min': 'Valid-Until-Min',
  'valid-until-max': 'Valid-Until-Max',
  'check-date': 'Check-Date',
  'date-max-future': 'Date-Max-Future',
  'inrelease-path': 'InRelease-Path',
  snapshot: 'Snapshot',
};

/** Names that stand for a release instead of its code name. */
const ALIASES = ['stable', 'oldstable', 'oldoldstable', 'testing', 'unstable'];

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '');

/** Parses a `*.sources` file (deb822). Stanzas that are switched off are left out. */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.replace(/^#.*\n?/gm, '').split(/\n[ \t]*\n+/)) {
    const fields = new Map<string, string>();
    const names = new Map<string, string>();
    let last: string | undefined;
    for (const line of stanza.split('\n')) {
      const start = /^([^\s:]+):[ \t]*(.*)$/.exec(line);
      if (start !== null) {
        const [, name = '', value = ''] = start;
        last = name.toLowerCase();
        fields.set(last, value.trimEnd());
        names.set(last, name);
      } else if (last !== undefined && /^[ \t]+\S/.test(line)) {
        fields.set(last, `${fields.get(last) ?? ''}\n${line.trimEnd()}`);
      }
    }
    const take = (name: string): string[] => {
      const value = words(fields.get(name) ?? '');
      fields.delete(name);
      return value;
    };
    const enabled = (fields.get('enabled') ?? 'yes').trim().toLowerCase();
    fields.delete('enabled');
    const types = take('types');
    const source = { types, uris: take('uris'), suites: take('suites'), components: take('components') };
    if (['no', 'false', 'off', '0', 'without', 'disable'].includes(enabled)) continue;
    if (source.types.length === 0 || source.uris.length === 0) continue;
    const others = new Map([...fields].map(([name, value]) => [names.get(name) ?? name, value]));
    sources.push({ ...source, fields: others });
  }
  return sources;
}

/** Parses a `sources.list` (one source a line). */
export function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)\s*(?:#.*)?$/.exec(
      line,
    );
    if (match === null) continue;
    const [, type = '', options = '', uri = '', suite = '', components = ''] = match;
    const fields = new Map<string, string>();
    for (const option of words(options)) {
      const [name = '', value = ''] = option.split('=', 2);
      const field = OPTION_FIELDS[name.toLowerCase().replace(/[+-]$/, '')];
      if (field !== undefined) fields.set(field, value.split(',').join(' '));
    }
    sources.push({ types: [type], uris: [uri], suites: [suite], components: words(components), fields });
  }
  return sources;
}

/**
 * The sources for the harness: those of the system that carry the release itself, its updates and its security fixes,
 * and the backports from the same mirrors.
 *
 * @param codename the release's code name (`VERSION_CODENAME` in os-release)
 * @returns an empty list if the system has no source for its own release
 */
export function deriveSources(sources: readonly AptSource[], codename: string): AptSource[] {
  const isRelease = (suite: string): boolean => suite === codename || ALIASES.includes(suite);
  const isOfRelease = (suite: string): boolean =>
    isRelease(suite) ||
    [codename, ...ALIASES].some((name) => /^[-/](updates|security)$/.test(suiteRest(suite, name)));
  const derived: AptSource[] = [];
  const backports: AptSource[] = [];
  for (const source of sources) {
    const uris = source.uris.filter((uri) => !uri.startsWith('cdrom:'));
    if (!source.types.includes('deb') || !source.components.includes('main') || uris.length === 0) continue;
    const suites = source.suites.filter(isOfRelease);
    if (suites.length === 0) continue;
    derived.push({ ...source, types: ['deb'], uris, suites, components: ['main'] });
    // The first mirror of the release is enough: further entries with it carry updates.
    if (suites.some(isRelease) && backports.length === 0 && !/^(sid|unstable|testing)$/.test(codename)) {
      backports.push({
        ...source,
        types: ['deb'],
        uris,
        suites: [`${codename}-backports`],
        components: ['main'],
      });
    }
  }
  return [...derived, ...backports];
}

/**
 * The sources of another suite on the mirrors of the release: for single packages that the release does not have.
 *
 * @param sources what {@link deriveSources} made
 * @returns one source, or none if there is no mirror
 */
export function sourcesOfSuite(sources: readonly AptSource[], suite: string): AptSource[] {
  // A mirror of security fixes has nothing else.
  const mirror = sources.find(({ suites }) => !suites.every((name) => /[-/](updates|security)$/.test(name)));
  return mirror === undefined ? [] : [{ ...mirror, suites: [suite] }];
}

function suiteRest(suite: string, name: string): string {
  return suite.startsWith(name) ? suite.slice(name.length) : '';
}

/** Writes sources as a `*.sources` file. */
export function formatDeb822(sources: readonly AptSource[]): string {
  return sources
    .map((source) => {
      const lines = [
        `Types: ${source.types.join(' ')}`,
        `URIs: ${source.uris.join(' ')}`,
        `Suites: ${source.suites.join(' ')}`,
        `Components: ${source.components.join(' ')}`,
      ];
      for (const [name, value] of source.fields) {
        lines.push(value.startsWith('\n') ? `${name}:${value}` : `${name}: ${value}`);
      }
      return `${lines.join('\n')}\n`;
    })
    .join('\n');
}
