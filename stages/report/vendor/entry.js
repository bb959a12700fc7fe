// What the page's viewer needs of three.js, bundled into three.min.js as the global THREE (see README.md).
export {
  AmbientLight, Box3, Color, DirectionalLight, DoubleSide, MeshBasicMaterial, MeshStandardMaterial, NeutralToneMapping,
  PerspectiveCamera, Scene, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
