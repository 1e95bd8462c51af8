/** What a fetched corpus is: texts made from published packages. */

/** One line of a corpus's JSONL file. */
export interface CorpusText {
  /** The same in every build from the same package. */
  id: string;
  title?: string;
  text: string;
  url?: string;
}

/** A package of npm, in exactly this version and with exactly this content. */
export interface NpmPackage {
  manager: 'npm';
  name: string;
  version: string;
  /** As npm publishes it: `sha512-…`. */
  integrity: string;
}

/** A package of the Debian release that this machine's apt knows. */
export interface DebianPackage {
  manager: 'debian';
  name: string;
  /** `name` only names the package of the release: the one that it depends on whose name begins so. */
  dependency?: string;
}

/** The English descriptions of all packages of that release: a folder with one `<release>.txt` each. */
export interface DebianDescriptions {
  manager: 'debian-descriptions';
  name: 'Translation-en';
}

export type PackageRequest = NpmPackage | DebianPackage | DebianDescriptions;

export interface Corpus {
  name: string;
  /** One line for the list. */
  describe: string;
  language: 'English' | 'Chinese';
  /** About how many million bytes of UTF-8 its texts have, as measured on Debian 12. */
  megabytes: number;
  licence: string;
  packages: readonly PackageRequest[];
  /** Files that state the licence, by package: paths inside its folder. */
  licenceFiles: readonly (readonly string[])[];
  /**
   * Texts in a fixed order.
   * @param folders of the unpacked packages, in the order of `packages`
   * @throws UserError input_missing or input_invalid when a package does not hold what it should
   */
  read(folders: readonly string[]): AsyncIterable<CorpusText>;
}
