// What is read of the server while it is changed from here may say how it was before: it is read again then.

export class Changes {
  private count = 0;

  /** After the server has confirmed a change. */
  made(): void {
    this.count += 1;
  }

  async read<T>(load: () => Promise<T>): Promise<T> {
    for (;;) {
      const before = this.count;
      const found = await load();
      if (before === this.count) return found;
    }
  }
}
