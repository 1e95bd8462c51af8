/**
 * The colours of heat maps, from dark blue over green to light yellow. Lightness rises evenly with the value, so that the
 * order is seen in grey and by colour-blind eyes, too. Also used in the browser: nothing of Node here.
 */

/** Red, green, blue, 0 to 255. */
export type Colour = readonly [number, number, number];

/** Where there is no value. */
export const NO_VALUE: Colour = [128, 128, 128];

const STEPS = 256;
const COLOURS: readonly Colour[] = Array.from({ length: STEPS }, (_, i) => ramp(i / (STEPS - 1)));

/** The colour of `value` in a range; values outside get the colour of the nearer end. */
export function colourOf(value: number | null, [low, high]: readonly [number, number]): Colour {
  if (value === null || !Number.isFinite(value)) return NO_VALUE;
  const share = high > low ? (value - low) / (high - low) : 0.5;
  return COLOURS[Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1))]!;
}

/** A way through Oklab's cylinder: lightness in equal steps, hue from blue to yellow, most chroma in the middle. */
function ramp(share: number): Colour {
  const hue = ((280 - 180 * share) * Math.PI) / 180;
  const chroma = 0.05 + 0.09 * Math.sin(Math.PI * share);
  return fromOklab(0.22 + 0.74 * share, chroma * Math.cos(hue), chroma * Math.sin(hue));
}

/** Björn Ottosson, "A perceptual color space for image processing" (2020), and the transfer curve of sRGB. */
function fromOklab(lightness: number, a: number, b: number): Colour {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    toByte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    toByte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    toByte(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

function toByte(linear: number): number {
  const light = Math.min(1, Math.max(0, linear));
  return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
}
