// A line chart over the last minutes (uPlot). Its newest value is text as well, for those who do not see it.

import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { systemIsDark, theme } from '../theme.js';

interface Series {
  name: string;
  colour: 'accent' | 'danger' | 'warn';
  values: (number | null)[];
}

interface ChartProps {
  title: string;
  /** Seconds since 1970. */
  at: number[];
  series: Series[];
  /** Indices of `at` where another generation became live. */
  marks?: { index: number; text: string }[];
  show: (value: number) => string;
  /** There is nothing between two numbers. */
  whole?: boolean;
}

const HEIGHT = 150;

export function Chart({ title, at, series, marks = [], show, whole }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const marked = useRef(marks);
  marked.current = marks;
  const colours = `${theme.value} ${systemIsDark.value}`;
  useLayoutEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
    const markGenerations = (plot: uPlot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour('soft');
      ctx.setLineDash([4, 4]);
      ctx.font = `${11 * devicePixelRatio}px system-ui`;
      for (const { index, text } of marked.current) {
        const x = plot.valToPos(plot.data[0][index]!, 'x', true);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const isRight = x > bbox.left + bbox.width * 0.7;
        ctx.textAlign = isRight ? 'right' : 'left';
        ctx.fillText(text, x + (isRight ? -5 : 5) * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
      }
      ctx.restore();
    };
    const plot = new uPlot(
      {
        width: box.current!.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
        axes: [
          { ...axis, size: 30, space: 90, values: (plot, ticks) => ticks.map((tick) => (plot.data[0].length > 1 ? new Date(tick * 1_000).toLocaleTimeString('en-GB') : '')) },
          { ...axis, size: 62, space: 36, values: (_, ticks) => ticks.map(show), ...(whole ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6, 1e7] } : {}) },
        ],
        series: [{}, ...series.map(({ name, colour: of }) => ({ label: name, stroke: colour(of), width: 2, spanGaps: true, points: { show: false } }))],
        hooks: { draw: [markGenerations] },
      },
      [at, ...series.map(({ values }) => values)],
      box.current!,
    );
    chart.current = plot;
    const resized = new ResizeObserver(() => plot.setSize({ width: box.current!.clientWidth, height: HEIGHT }));
    resized.observe(box.current!);
    return () => {
      resized.disconnect();
      plot.destroy();
    };
  }, [colours, series.length]);
  useEffect(() => chart.current?.setData([at, ...series.map(({ values }) => values)]), [at, series]);
  const now = series.map(({ name, values }) => {
    const value = values.at(-1);
    return { name, text: value === null || value === undefined ? 'none' : show(value) };
  });
  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span>
        {now.map(({ name, text }, index) => (
          <span class={`chart-now chart-${series[index]!.colour}`}>
            {series.length > 1 && `${name} `}
            <b>{text}</b>
          </span>
        ))}
      </figcaption>
      <div ref={box} aria-hidden="true" class="plot" />
    </figure>
  );
}
