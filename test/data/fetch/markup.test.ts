import { describe, expect, it } from 'vitest';
import { htmlPage } from '../../../src/data/fetch/html.ts';
import { manPage } from '../../../src/data/fetch/man.ts';
import { flowingText } from '../../../src/data/fetch/page.ts';
import { podPage } from '../../../src/data/fetch/pod.ts';
import { rstPage } from '../../../src/data/fetch/rst.ts';

it('flowing text: no blank between Chinese characters of two lines', () => {
  expect(flowingText(' 从MSI\n中断，\n  第二行 \t end\nnext ')).toBe('从MSI 中断，第二行 end next');
});

describe('HTML', () => {
  it('paragraphs, headings, lists, tables; no navigation, listings and programs', () => {
    const page = htmlPage(
      `<html><head><title>T</title><style>p { }</style></head><body>
      <div class="nav top">Home</div><div id="main"><h1>1.2. A <i>title</i><a class="mark">¶</a></h1>
      <p>One &amp; <b>two</b><br>three<pre>code()</pre>four
      <ul><li>first<li><p>second</p><p>more</p></ul>
      <table><tr><th>term:<td><p>meaning</p><tr><td>a<td>b<td>c</table><script>x < y</script><!-- no -->
      <dl><dt>word<dd>what it is</dl></div><div>outside</div></body></html>`,
      {
        content: 'main',
        without: ['mark'],
      },
    );
    expect(page).toEqual({
      title: 'A title',
      text: 'A title\n\nOne & two three\n\nfour\n\n- first\n- second\n\nmore\n\nterm: meaning\n\na, b, c\n\nword\n\nwhat it is',
    });
  });

  it('the title of the head, where the page has none', () => {
    const source = '<title>The title</title><body><h2>Part</h2><p>Text.';
    expect(htmlPage(source, { titleOfHead: true })).toEqual({ title: 'The title', text: 'The title\n\nPart\n\nText.' });
    expect(htmlPage(source)?.title).toBe('Part');
  });

  it('no page without prose, or without the part that holds it', () => {
    expect(htmlPage('<h1>Title</h1><pre>only code</pre>')).toBeUndefined();
    expect(htmlPage('<p>text</p>', { content: 'main' })).toBeUndefined();
    expect(htmlPage('')).toBeUndefined();
  });

  it('elements that hold each other deeply and are never closed', () => {
    expect(htmlPage(`${'<div>'.repeat(500)}deep`)?.text).toBe('deep');
  });
});

describe('reStructuredText', () => {
  const text = (source: string) => rstPage(source)?.text;

  it('titles with and without overline, transitions, fields in front', () => {
    const source = `.. SPDX-License-Identifier: GPL-2.0

=====
Title
=====

:Author: Somebody
         and more

Part
----

Text of
two lines.

----

:field: in the text
`;
    expect(rstPage(source)).toEqual({
      title: 'Title',
      text: 'Title\n\nPart\n\nText of two lines.\n\nfield: in the text',
    });
  });

  it('listings after two colons, in directives, and of sessions', () => {
    const source = `As here::

    int x;

      deeper

Next ::

    y

.. code-block:: c
   :caption: z

   int z;

>>> 1 + 1
2

::

    alone

- an item::

      in the item

  goes on
End.`;
    expect(text(source)).toBe('As here:\n\nNext:\n\n- an item:\n\ngoes on\n\nEnd.');
  });

  it('directives that are prose: notes, versions, descriptions of functions', () => {
    const source = `.. note:: Beginning
   and end.

   Second.

.. warning::

   Alone.

.. function:: f(x, \\*args)
   :async:

   Calls *f*.

   .. versionadded:: 3.5

   .. versionchanged:: 3.6
      Takes \`\`x\`\`.

.. toctree::
   :maxdepth: 2

   other

.. _target:
.. |name| replace:: else
.. [1] A footnote
   of two lines.
.. just a comment
   that goes on
`;
    expect(text(source)).toBe(
      'Beginning and end.\n\nSecond.\n\nAlone.\n\nf(x, *args)\n\nCalls f.\n\nNew in version 3.5.\n\n' +
        'Changed in version 3.6: Takes x.\n\nA footnote of two lines.',
    );
  });

  it('tables are left out', () => {
    const source = `Before.

+---+---+
| a | b |
+---+---+

==== ====
a    b
==== ====
1    2

3    4
==== ====

After.`;
    expect(text(source)).toBe('Before.\n\nAfter.');
  });

  it('marks in the line', () => {
    const source =
      'A *word*, **two words**, ``x *y* :z:`a` ``, :ref:`shown <target>`, :c:func:`~a.b.c`, :exc:`!E`, `link <http://a>`_, ' +
      '`other`__, plain_, note [#]_, |sub|, 2*3*4, **kwargs, a\\*b, \\ joined.';
    expect(text(source)).toBe(
      'A word, two words, x *y* :z:`a` , shown, c, E, link, other, plain, note, sub, 2*3*4, **kwargs, a*b, joined.',
    );
  });

  it('lists one item a line, definitions, lines of verse', () => {
    const source = `* one
  goes on
* two

1. three
#. four

term
    what it is

| verse
| two`;
    expect(text(source)).toBe('- one goes on\n- two\n- three\n- four\n\nterm\n\nwhat it is\n\nverse two');
  });

  it('Chinese titles, whose line below is longer or shorter in characters', () => {
    expect(rstPage('什么是MSI?\n==========\n\n中断。\n')).toEqual({
      title: '什么是MSI?',
      text: '什么是MSI?\n\n中断。',
    });
  });

  it('no page without prose', () => {
    expect(rstPage('Title\n=====\n\n.. toctree::\n\n   a\n')).toBeUndefined();
    expect(rstPage('')).toBeUndefined();
  });
});

describe('man', () => {
  const head = '.\\" A comment\n.TH open 2 2023-02-05 "Linux man-pages"\n';

  it('title, sections, fonts, tags; no synopsis, listings and tables', () => {
    const source = `${head}.SH NAME
open \\- open a file
.SH SYNOPSIS
.nf
.B #include <fcntl.h>
.fi
text of the synopsis
.SH "RETURN VALUE"
The
.BR open ()
call, see
.RB ( read "(2), " write (2)).
.PP
A \\fIword\\fP and \\f(CWtwo\\fR\\(emdash; caf\\['e] \\(dqq\\(dq \\e \\s-1X\\s0.\\" comment
.TP
.B O_RDONLY
Reading
only.
.IP \\(bu 3
point
.IP (a)
lettered
.EX
int x;
.EE
.TS
l l.
a	b
.TE
.SS Part two
Joined \\
line.
.UR http://a.org
.UE
`;
    expect(manPage(source)).toEqual({
      title: 'open(2)',
      text:
        'open(2)\n\nNAME\n\nopen - open a file\n\nRETURN VALUE\n\nThe open() call, see (read(2), write(2)).\n\n' +
        'A word and two—dash; café "q" \\ X.\n\nO_RDONLY\n\nReading only.\n\npoint\n\n(a)\n\nlettered\n\nPart two\n\n' +
        'Joined line. http://a.org',
    });
  });

  it('macros that are defined and conditions are left out', () => {
    const source = `${head}.de XX
inside a macro
..
.ie n \\{\\
.ds x y
text of a condition
.\\}
.el z
.SH 描述
列出目录
内容。
`;
    expect(manPage(source)?.text).toBe('open(2)\n\n描述\n\n列出目录内容。');
  });

  it('no page for another name of a page, other macros, no prose', () => {
    expect(manPage('.so man3/malloc.3\n')).toBeUndefined();
    expect(manPage('.Dd May 1\n.Dt X 3\n.Sh NAME\ntext\n')).toBeUndefined();
    expect(manPage(`${head}.SH NAME\n`)).toBeUndefined();
  });
});

describe('POD', () => {
  it('commands, codes inside codes, no listings and other formats', () => {
    const source = `#!/usr/bin/perl
code before

=head1 NAME

perlx - about C<< $x->y >> and more

=over 4

=item *

Point.

=item f(SUBNAME)

Calls B<I<it>>, see L<the page|perlfunc>, L<perlop/"Quote Operators">, L<perlvar>, L<http://a.org/b>E<gt>X<index>Z<>.

 listing()
   deeper

=back

=begin html

<p>no</p>

=end html

=for comment no

=cut

more code

=head2 Last

C<<< a >> b >>> and E<0x2014> end
`;
    expect(podPage(source)).toEqual({
      title: 'perlx - about $x->y and more',
      text:
        'NAME\n\nperlx - about $x->y and more\n\nPoint.\n\n- f(SUBNAME)\n\n' +
        'Calls it, see the page, Quote Operators, perlvar, http://a.org/b>.\n\nLast\n\na >> b and — end',
    });
  });

  it('a code that is never closed ends with the paragraph', () => {
    expect(podPage('=pod\n\nB<bold\n\nC<< next\n')?.text).toBe('bold\n\nnext');
    expect(podPage('=head1 ONLY\n\n code\n')).toBeUndefined();
  });
});
