// Stands between Netron's viewer and the page that exporter.pages.graph packs it into: hands it the one model, and keeps
// it from everything that is not in the page. The page's sandbox has no cookies, no storage and no network.

const parts = JSON.parse(document.getElementById('parts').textContent);

const unpack = async (text) => {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(stream).arrayBuffer());
};

const unpackText = async (text) => new TextDecoder().decode(await unpack(text));

const say = (text) => {
    document.body.className = 'alert';
    document.getElementById('message-text').innerText = text;
    document.getElementById('message-button').style.display = 'none';
};

// In the place of modules that are left out, which the viewer asks whether a file is one of theirs: it is not.
const ABSENT = `const none = { open() { return null; } };
export { none as Archive, none as BinaryReader, none as File, none as TextReader, none as Unpickler };`;

// Modules come in an order in which each needs only those before it.
const load = async (sources) => {
    const makeUrl = (code) => URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
    const absent = makeUrl(ABSENT);
    const urls = new Map();
    for (const [name, source] of sources) {
        const code = source.replace(/(from |import\()'\.\/([\w-]+\.js)'/g, (all, before, other) =>
            `${before}'${urls.get(other) ?? absent}'`);
        urls.set(name, makeUrl(code));
    }
    return urls;
};

class Context {

    constructor(host, stream) {
        this.identifier = parts.name;
        this.name = parts.name;
        this.stream = stream;
        this.host = host;
    }

    async asset(file) {
        return this.host.asset(file);
    }

    async fetch(file) {
        return this.host.fetch(file);
    }

    async require(id) {
        return this.host.require(id);
    }

    error(error) {
        this.host.exception(error);
    }
}

class Host {

    constructor(modules, assets) {
        this.modules = modules;
        this.assets = assets;
        this.window = window;
        this.document = document;
        this.type = 'Page';
        this.version = parts.version;
    }

    environment(name) {
        // serial: graphs are laid out here, as a sandbox may start no worker.
        return { name: 'Netron', serial: true, menu: false, packaged: true }[name];
    }

    async view(view) {
        this.viewer = view;
    }

    // A served page gets the model, and its weights when one is looked at, from its own server.
    async fetch(file) {
        const response = parts.url ? await window.fetch(file) : null;
        if (!response || !response.ok) {
            throw new Error(`${file} is not part of this page.`);
        }
        return this.open(new Uint8Array(await response.arrayBuffer()));
    }

    async open(bytes) {
        const { BinaryStream } = await this.require('./base');
        return new BinaryStream(bytes);
    }

    async start() {
        const stream = parts.url ? await this.fetch(parts.url) : await this.open(await unpack(parts.model));
        this.viewer.show('welcome spinner');
        try {
            if (await this.viewer.open(new Context(this, stream))) {
                this.viewer.show(null);
                document.title = parts.title;
            }
        } catch (error) {
            say(`The graph cannot be drawn: ${error.message}`);
        }
    }

    async require(id) {
        const url = this.modules.get(`${id.replace('./', '')}.js`);
        // What reads other formats says that the model is none of its own.
        return url ? import(url) : { ModelFactory: class { async match() { return null; } } };
    }

    async asset(file) {
        if (file in this.assets) {
            return this.assets[file];
        }
        throw new Error(`${file} is not part of this page.`);
    }

    async message(text) {
        say(text);
    }

    exception(error) {
        window.console.error(error);
    }

    event() {}

    update() {}

    get() {}

    set() {}

    delete() {}

    openURL() {}

    async execute() {}

    async save() {}

    async export() {}
}

(async () => {
    const viewer = JSON.parse(await unpackText(parts.viewer));
    const modules = await load(viewer.modules);
    const { View } = await import(modules.get('view.js'));
    await new View(new Host(modules, JSON.parse(await unpackText(parts.assets)))).start();
})().catch((error) => say(`The viewer did not start: ${error.message}`));
